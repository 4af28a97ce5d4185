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
int main() { int fd = syscall(SYS_memfd_create, "x", 0); if (fd < 0) return 1; puts("49"); }
