#include <thread>
int main() { auto f = [] { volatile unsigned long i = 0; for (;;) i = i + 1; }; std::thread a(f), b(f); a.join(); b.join(); }
