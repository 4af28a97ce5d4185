#include <bits/stdc++.h>
using namespace std;
// testlib's command line: input, output, answer; exit 0 right, 1 wrong.
int main(int argc, char **argv) {
    if (argc < 4) return 3;
    ifstream in(argv[1]), out(argv[2]);
    long long a, b, c;
    while (in >> a >> b) {
        if (!(out >> c)) { cerr << "too few numbers\n"; return 1; }
        if (c != (a > b ? a - b : b - a)) { cerr << "wrong difference\n"; return 1; }
    }
    string rest;
    if (out >> rest) { cerr << "too many words\n"; return 1; }
    return 0;
}
