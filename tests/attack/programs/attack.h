/* What every program says: that it won, or why it lost. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline int said(long result)
{
	if (result >= 0)
		puts("won");
	else
		printf("lost: %s\n", strerror(errno));
	fflush(stdout);
	return result < 0;
}

static inline int lost(const char *why)
{
	printf("lost: %s\n", why);
	return 1;
}

/* The command of the first argument, of a table that ends with a name of NULL. */
struct command {
	const char *name;
	int (*run)(int count, char **words);
};

static inline int dispatch(const struct command *commands, int count, char **words)
{
	for (; commands->name; commands++)
		if (count > 1 && !strcmp(words[1], commands->name))
			return commands->run(count - 2, words + 2);
	fprintf(stderr, "no such command\n");
	return 2;
}

static inline size_t bytes_of(const char *hex, unsigned char *into, size_t room)
{
	size_t length = 0;
	for (; hex[0] && hex[1] && length < room; hex += 2)
		sscanf(hex, "%2hhx", &into[length++]);
	return length;
}
