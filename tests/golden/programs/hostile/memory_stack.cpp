// expect: MLE RE
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
int f(int n) { volatile char a[4096]; a[n % 4096] = n; return n ? f(n + 1) + a[0] : 0; }
int main() { return f(1); }
