#include <bits/stdc++.h>
using namespace std;
int main() { int n; cin >> n; double sum = 0, term = 1.0 / n; for (int i = 0; i < n; i++) term *= 1; double p = 1; for (int k = 1; k <= n; k++) { p *= (double)(n - k + 1) / n; if (k >= 2) sum += p; } double r = sum / n; for (int i = 0; i < n; i++) r *= (double)n / (n - 1); printf("%.10e\n", r); }
