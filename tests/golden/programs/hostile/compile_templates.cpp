// expect: CE
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
template <int N> struct F { static constexpr long v = F<N - 1>::v + F<N - 2>::v; };
template <long A, long B> struct G { using type = G<A + 1, B>; static constexpr long v = G<A + 1, B * 3 + A>::v + G<A + 2, B * 5 + 1>::v; };
int main() { return G<0, 1>::v; }
