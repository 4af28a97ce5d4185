#include <bits/stdc++.h>
using namespace std;
int main() { long long a, b; while (cin >> a >> b) { volatile long long n = 0; if (a > b) swap(a, b); while (a + n < b) n = n + 1; cout << n << "\n"; } }
