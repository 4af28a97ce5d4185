#include <bits/stdc++.h>
using namespace std;
int main() { puts("Hello World!"); fflush(stdout); volatile int *p = nullptr; *p = 1; }
