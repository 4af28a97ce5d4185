int main() { return "Hello World!" }
