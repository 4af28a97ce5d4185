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
int main() { if (mknod("/tmp/d", S_IFBLK | 0600, 0x800)) return 1; puts("49"); }
