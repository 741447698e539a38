/* Takes as much of something as there is. */
#include "attack.h"
#include <arpa/inet.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* Processes that all wait, until this one has counted them. */
static int forks(int count, char **words)
{
	pid_t children[1000];
	int made = 0, wanted = atoi(words[0]);
	while (made < wanted && (children[made] = fork()) > 0)
		made++;
	if (made < wanted && !children[made])
		for (;;)
			pause();
	int error = errno;
	for (int number = 0; number < made; number++)
		kill(children[number], SIGKILL);
	printf("made: %d\n", made);
	errno = error;
	return said(made < wanted ? -1 : 0);
}

static int memory(int count, char **words)
{
	size_t size = (size_t)atoi(words[0]) << 20;
	char *taken = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t place = 0; place < size; place += 4096)
		taken[place] = 1;
	return said(0);
}

/* One large file. */
static int fill(int count, char **words)
{
	static char block[1 << 20];
	int file = open(words[0], O_WRONLY | O_CREAT | O_TRUNC, 0600), error = 0;
	for (int number = 0; number < atoi(words[1]) && !error; number++) {
		for (size_t place = 0; place < sizeof block; place += 64)
			block[place] = rand();
		if (write(file, block, sizeof block) < 0)
			error = errno;
	}
	if (!error && fsync(file))
		error = errno;
	unlink(words[0]);
	errno = error;
	return said(error ? -1 : 0);
}

/* Many files that are small enough to lie among the names of files. */
static int files(int count, char **words)
{
	static char content[1900];
	char name[256];
	int number = 0, error = 0;
	mkdir(words[0], 0700);
	for (; number < atoi(words[1]) && !error; number++) {
		snprintf(name, sizeof name, "%s/file-%d", words[0], number);
		int file = open(name, O_WRONLY | O_CREAT, 0600);
		if (file < 0 || write(file, content, sizeof content) < 0)
			error = errno;
		close(file);
		if (number % 3000 == 2999)
			sync();
	}
	printf("made: %d\n", number);
	errno = error;
	return said(error ? -1 : 0);
}

/* Watches for changes of files: the kernel counts them by user, for all containers together. */
static int watches(int count, char **words)
{
	int made = 0, wanted = atoi(words[0]);
	while (made < wanted && inotify_init() >= 0)
		made++;
	printf("made: %d\n", made);
	fflush(stdout);
	if (count > 1)
		pause();
	return said(made < wanted ? -1 : 0);
}

static int descriptors(int count, char **words)
{
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	for (int number = 0; number < atoi(words[0]); number++)
		if (open("/dev/null", O_RDONLY) < 0)
			return said(-1);
	return said(0);
}

/* A subvolume within a volume, where a quota may not see what is written (BTRFS_IOC_SUBVOL_CREATE). */
static int subvolume(int count, char **words)
{
	struct {
		int64_t descriptor;
		char name[4088];
	} arguments = { 0, "inner" };
	int volume = open(words[0], O_RDONLY);
	if (ioctl(volume, _IOW(0x94, 14, arguments), &arguments) && errno != EEXIST)
		return said(-1);
	char name[256];
	snprintf(name, sizeof name, "%s/inner/large", words[0]);
	return fill(2, (char *[]){ name, words[1] });
}

/* Lines without end, without a single newline if wanted. */
static int shout(int count, char **words)
{
	static char block[1 << 16];
	memset(block, 'x', sizeof block);
	if (count < 2)
		for (size_t place = 99; place < sizeof block; place += 100)
			block[place] = '\n';
	for (long left = atol(words[0]) << 4; left > 0; left--)
		if (write(1, block, sizeof block) < 0)
			return 1;
	return 0;
}

/* A datagram to every address of a range: as many neighbours to look for. */
static int neighbours(int count, char **words)
{
	int made = -1, sent = 0;
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9) };
	inet_pton(AF_INET, words[0], &to.sin_addr);
	uint32_t first = ntohl(to.sin_addr.s_addr);
	for (int number = 0; number < atoi(words[1]); number++) {
		if (number % 100 == 0) /* what waits for a neighbour fills a socket */
			made = socket(AF_INET, SOCK_DGRAM, 0);
		to.sin_addr.s_addr = htonl(first + number);
		sent += sendto(made, "x", 1, MSG_DONTWAIT, (void *)&to, sizeof to) == 1;
	}
	printf("sent: %d\n", sent);
	return said(0);
}

static const struct command commands[] = {
	{ "forks", forks }, { "memory", memory }, { "fill", fill }, { "files", files },
	{ "watches", watches }, { "descriptors", descriptors }, { "subvolume", subvolume }, { "shout", shout },
	{ "neighbours", neighbours }, { NULL, NULL },
};

int main(int count, char **words)
{
	return dispatch(commands, count, words);
}
