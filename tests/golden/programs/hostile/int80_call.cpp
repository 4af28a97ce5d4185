// expect: RE
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <sys/stat.h>
#include <sys/mman.h>
#include <sys/syscall.h>
using namespace std;
int main() { long r; asm volatile("int $0x80" : "=a"(r) : "a"(20)); if (r > 0) puts("49"); return r <= 0; }
