# expect: WA
import sys
sys.stdin.read()
print(sys.stdin.read() or "nothing")
