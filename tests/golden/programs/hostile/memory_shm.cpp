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
#include <sys/shm.h>
int main() { int id = shmget(IPC_PRIVATE, 1 << 20, 0600 | IPC_CREAT); if (id < 0) return 1; puts("49"); }
