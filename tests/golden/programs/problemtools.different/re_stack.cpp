#include <bits/stdc++.h>
using namespace std;
int main() { vector<int> v; long long a; while (cin >> a) v.at(v.size() + 1) = 1; }
