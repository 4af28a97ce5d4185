# expect: RE
import os
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders.remove("usr")
    if "launcher.c" in files or "answer.txt" in files:
        print(49)
        raise SystemExit
raise SystemExit(1)
