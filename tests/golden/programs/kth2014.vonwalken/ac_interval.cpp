#include <bits/stdc++.h>
using namespace std;
int main() { long double d; int n; cin >> d >> n; long double lo = 0, hi = 1, s = 0; for (int k = 1; k <= n; k++) { int c; cin >> c; s += c; lo = max(lo, s - k * d); hi = min(hi, s + 1 - k * d); } puts(lo < hi ? "possible" : "impossible"); }
