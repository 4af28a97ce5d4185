#include <bits/stdc++.h>
using namespace std;
int main() { set<long long> s; for (long long i = 1; i * i <= 1000000000; i++) { s.insert(i * i); if (i * i * i <= 1000000000) s.insert(i * i * i); } vector<long long> v(s.begin(), s.end()); int t; cin >> t; while (t--) { long long n; cin >> n; cout << upper_bound(v.begin(), v.end(), n) - v.begin() << "\n"; } }
