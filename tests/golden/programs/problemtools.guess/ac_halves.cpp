#include <bits/stdc++.h>
using namespace std;
int main() { int l = 1, h = 1000; string s; while (true) { int m = (l + h) / 2; cout << m << endl; cin >> s; if (s == "correct") return 0; if (s == "lower") h = m - 1; else l = m + 1; } }
