#include <bits/stdc++.h>
using namespace std;
int main() { string s; for (int i = 1000; i; i--) { cout << i << endl; cin >> s; if (s == "correct") return 0; } }
