# expect: RE
print(open("/etc/shadow").read()[:0] + "49")
