"""What NCEn-TF is measured against, and how its weights get there."""
