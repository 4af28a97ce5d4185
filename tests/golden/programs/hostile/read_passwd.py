# expect: RE
print(open("/etc/passwd").read()[:0] + "49")
