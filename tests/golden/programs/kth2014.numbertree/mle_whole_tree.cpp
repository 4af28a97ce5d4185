#include <bits/stdc++.h>
using namespace std;
int main() { int h; string s; cin >> h >> s; vector<int> t(1ull << h, 1); long long i = 1; for (char c : s) i = 2 * i + (c == 'R'); cout << (2LL << h) - i + t[0] - 1 << "\n"; }
