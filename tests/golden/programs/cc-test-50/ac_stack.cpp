#include <bits/stdc++.h>
using namespace std;
int main() {
    const long long M = 998244353;
    int n; scanf("%d", &n);
    vector<long long> a(n), f(n + 1), sum(n + 1);
    for (auto &x : a) scanf("%lld", &x);
    f[0] = 1;
    vector<pair<long long, long long>> st;  // minimum, signed sum of f
    long long total = 0;
    for (int i = 1; i <= n; i++) {
        // f_i = sum_j f_j (-1)^(i-j-1) min(a_j+1..a_i); g_j = f_j (-1)^j
        long long g = (i - 1) % 2 ? (M - f[i - 1]) % M : f[i - 1];
        while (!st.empty() && st.back().first >= a[i - 1]) {
            g = (g + st.back().second) % M;
            total = ((total - st.back().first % M * st.back().second) % M + M) % M;
            st.pop_back();
        }
        st.push_back({a[i - 1], g});
        total = (total + a[i - 1] % M * g) % M;
        f[i] = (i - 1) % 2 ? (M - total) % M : total;
    }
    printf("%lld\n", f[n]);
}
