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
#include <sys/mount.h>
int main() { if (mount("x", "/tmp", "tmpfs", 0, "")) return 1; puts("49"); }
