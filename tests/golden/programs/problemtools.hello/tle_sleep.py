import time
time.sleep(1000)
print("Hello World!")
