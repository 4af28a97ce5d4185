// expect: TLE RE
// Empty files take no room of /tmp's size, but the kernel's memory.
#include <cstdio>
#include <fcntl.h>
#include <unistd.h>

int main() {
    char name[32];
    for (long i = 0;; ++i) {
        std::snprintf(name, sizeof name, "/tmp/%ld", i);
        int file = open(name, O_CREAT | O_WRONLY, 0600);
        if (file < 0) return 1;
        close(file);
    }
}
