/* Packets and frames that an honest program would not send. */
#include "attack.h"
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>

static struct sockaddr_in address(const char *host, int port)
{
	struct sockaddr_in made = { .sin_family = AF_INET, .sin_port = htons(port) };
	inet_pton(AF_INET, host, &made.sin_addr);
	return made;
}

/* Sends each word, a frame in hexadecimal digits, as it is. */
static int frames(int count, char **words)
{
	unsigned char frame[2000];
	int sender = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(words[0]) };
	for (int number = 1; number < count; number++) {
		size_t length = bytes_of(words[number], frame, sizeof frame);
		if (sendto(sender, frame, length, 0, (void *)&to, sizeof to) < 0)
			return said(-1);
	}
	return said(0);
}

/* The same frame again and again, with a number written into four bytes at an offset. */
static int flood(int count, char **words)
{
	unsigned char frame[2000];
	int sender = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(words[0]) };
	int offset = atoi(words[1]), times = atoi(words[2]);
	size_t length = bytes_of(words[3], frame, sizeof frame);
	uint32_t first;
	memcpy(&first, frame + offset, 4);
	for (int number = 0; number < times; number++) {
		uint32_t value = htonl(ntohl(first) + number);
		memcpy(frame + offset, &value, 4);
		sendto(sender, frame, length, 0, (void *)&to, sizeof to);
	}
	return said(0);
}

/* Connects, and prints what it is told. */
static int ask(int count, char **words)
{
	char answer[200] = "";
	struct sockaddr_in to = address(words[0], atoi(words[1]));
	int made = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (connect(made, (void *)&to, sizeof to) && errno != EINPROGRESS)
		return said(-1);
	struct pollfd ready = { .fd = made, .events = POLLOUT };
	if (!poll(&ready, 1, atoi(words[2])))
		return lost("silence");
	int error = 0;
	socklen_t length = sizeof error;
	getsockopt(made, SOL_SOCKET, SO_ERROR, &error, &length);
	if (error) {
		errno = error;
		return said(-1);
	}
	ready.events = POLLIN;
	poll(&ready, 1, atoi(words[2]));
	if (read(made, answer, sizeof answer - 1) <= 0)
		return lost("no answer");
	printf("%s", answer);
	return said(0);
}

/* One datagram to each port from 1 on, from one socket: as many flows. */
static int flows(int count, char **words)
{
	int made = socket(AF_INET, SOCK_DGRAM, 0);
	for (int port = 1; port <= atoi(words[1]); port++) {
		struct sockaddr_in to = address(words[0], port);
		sendto(made, "x", 1, MSG_DONTWAIT, (void *)&to, sizeof to);
	}
	return said(0);
}

/* Connections to one port that are begun and forgotten, each from another port of ours. */
static int half_open(int count, char **words)
{
	struct sockaddr_in to = address(words[0], atoi(words[1]));
	struct linger at_once = { 1, 0 };
	for (int number = 0; number < atoi(words[2]); number++) {
		struct sockaddr_in from = address("0.0.0.0", 10000 + number);
		int made = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		if (made < 0 || bind(made, (void *)&from, sizeof from))
			return said(-1);
		setsockopt(made, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
		connect(made, (void *)&to, sizeof to);
		close(made);
	}
	return said(0);
}

/* Many questions to a resolver; prints how many were answered. */
static int questions(int count, char **words)
{
	unsigned char question[300], answer[600];
	size_t length = bytes_of(words[1], question, sizeof question);
	struct sockaddr_in to = address(words[0], 53);
	int made = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), answered = 0;
	int room = 4 << 20;
	setsockopt(made, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
	connect(made, (void *)&to, sizeof to);
	for (int number = 0; number < atoi(words[2]); number++) {
		send(made, question, length, 0);
		while (read(made, answer, sizeof answer) > 0)
			answered++;
		usleep(300);
	}
	struct pollfd ready = { .fd = made, .events = POLLIN };
	while (poll(&ready, 1, 500) > 0)
		while (read(made, answer, sizeof answer) > 0)
			answered++;
	printf("answered: %d\n", answered);
	return said(0);
}

static const struct command commands[] = {
	{ "frames", frames }, { "flood", flood }, { "ask", ask }, { "flows", flows },
	{ "half-open", half_open }, { "questions", questions }, { NULL, NULL },
};

int main(int count, char **words)
{
	return dispatch(commands, count, words);
}
