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
int main() { char a[128] = {}; if (syscall(SYS_bpf, 0, a, sizeof a) < 0) return 1; puts("49"); }
