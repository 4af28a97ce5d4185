print("possible")
