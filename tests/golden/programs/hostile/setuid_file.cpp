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
int main() { int fd = open("/tmp/s", O_CREAT | O_WRONLY, 04755); fchmod(fd, 04755); if (setuid(0) == 0 || seteuid(0) == 0) puts("49"); else return 1; }
