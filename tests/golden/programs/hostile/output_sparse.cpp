// expect: OLE
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
int main() { signal(SIGXFSZ, SIG_DFL); ftruncate(1, 1ll << 50); puts("49"); }
