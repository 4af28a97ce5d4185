#include <cstdio>
int main() { puts("inf"); }
