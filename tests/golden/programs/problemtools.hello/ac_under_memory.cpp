#include <bits/stdc++.h>
using namespace std;
int main() { vector<char> a(200u << 20, 1); if (a[1234567]) puts("Hello World!"); }
