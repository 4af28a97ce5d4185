#include <bits/stdc++.h>
using namespace std;
int main() { vector<char> a(700u << 20, 1); printf("%d Hello World!", a[12345]); }
