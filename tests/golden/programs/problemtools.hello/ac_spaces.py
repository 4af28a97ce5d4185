print("  Hello\n\n World!   ")
