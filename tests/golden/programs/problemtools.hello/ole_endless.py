while True:
    print("Hello World!" * 50)
