"""What must be there before anything else starts; it may run any number of times."""

from broker import connect

connect().set("queue:prepared", 1)
print("the queue is prepared")
