# expect: RE
import threading, time
for i in range(5000):
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
print(49)
