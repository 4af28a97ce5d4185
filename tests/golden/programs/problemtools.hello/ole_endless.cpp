#include <bits/stdc++.h>
using namespace std;
int main() { for (;;) puts("Hello World!"); }
