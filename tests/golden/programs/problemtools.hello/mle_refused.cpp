#include <bits/stdc++.h>
using namespace std;
int main() { vector<char> a(1ull << 45, 1); puts("Hello World!"); }
