"""Small files of every format that its reader accepts: what mutations start from."""
