// expect: OLE TLE
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
int main() { signal(SIGXFSZ, SIG_IGN); char b[65536]; memset(b, 65, sizeof b); for (;;) (void)!write(1, b, sizeof b); }
