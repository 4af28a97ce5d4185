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
#include <sys/ptrace.h>
int main() { if (ptrace(PTRACE_ATTACH, 1, 0, 0)) return 1; puts("49"); }
