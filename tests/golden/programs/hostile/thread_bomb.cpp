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
#include <thread>
#include <vector>
int main() { vector<thread> t; for (int i = 0; i < 100000; i++) t.emplace_back([] { sleep(1000); }); puts("49"); _exit(0); }
