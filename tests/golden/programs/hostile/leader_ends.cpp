// expect: TLE
// The first thread ends by itself, so that the process looks ended while another one computes on.
#include <sys/syscall.h>
#include <thread>
#include <unistd.h>

int main() {
    std::thread busy([] { for (volatile long i = 0;; i = i + 1) {} });
    syscall(SYS_exit, 0);
}
