/*
 * OpenBLAS's side of "muster bench gemm --beside": a process that times single-precision products
 * as it is told to. The library is opened at run time, so nothing of OpenBLAS is needed to build this.
 *
 *   cc -O2 -o sgemm sgemm.c -ldl
 *   ./sgemm [LIBRARY]      Debian: apt-get install libopenblas0-serial
 *
 * It says its name in one line. Then, for each line "NN|NT|TN M N K SECONDS" of its input, it makes
 * one product to warm up and as many as fit into that time, and answers with the nanoseconds of one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };

typedef void sgemm_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda,
		      const float *b, int ldb, float beta, float *c, int ldc);

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

/* filled returns n floats, on pages of their own, none of them zero or denormal. */
static float *filled(size_t n)
{
	size_t bytes = (n * sizeof(float) + 4095) / 4096 * 4096;
	float *v = aligned_alloc(4096, bytes);

	if (!v) {
		fprintf(stderr, "sgemm: no memory for %zu bytes\n", bytes);
		exit(1);
	}
	for (size_t i = 0; i < n; i++)
		v[i] = (float)(i % 17) * 0.1f - 0.75f;
	return v;
}

static double measure(sgemm_fn *sgemm, const char *form, int m, int n, int k, double secs)
{
	float *a = filled((size_t)m * k), *b = filled((size_t)k * n), *c = filled((size_t)m * n);
	int ta = form[0] == 'T', tb = form[1] == 'T';
	double begin = 0, took = 0;
	long calls = 0, batch = 1;

	for (int warm = 1; took < secs; warm = 0) {
		begin = warm ? 0 : begin ? begin : now();
		for (long i = 0; i < batch; i++)
			sgemm(ROW_MAJOR, ta ? TRANS : NO_TRANS, tb ? TRANS : NO_TRANS, m, n, k, 1, a, ta ? m : k, b,
			      tb ? k : n, 0, c, n);
		if (warm)
			continue;
		calls += batch;
		took = now() - begin;
		if (took < secs / 8) /* the clock is not to be asked after each small one */
			batch *= 2;
	}
	free(a);
	free(b);
	free(c);
	return took / calls;
}

int main(int argc, char **argv)
{
	const char *names[] = {argc > 1 ? argv[1] : "/usr/lib/x86_64-linux-gnu/openblas-serial/libopenblas.so.0",
			       "/usr/lib/aarch64-linux-gnu/openblas-serial/libopenblas.so.0"};
	void *lib = dlopen(names[0], RTLD_NOW);
	char form[3], *(*config)(void);
	int m, n, k;
	double secs;
	sgemm_fn *sgemm;

	if (!lib && argc < 2)
		lib = dlopen(names[1], RTLD_NOW);
	if (!lib) {
		fprintf(stderr, "sgemm: %s (Debian: apt-get install libopenblas0-serial)\n", dlerror());
		return 1;
	}
	sgemm = (sgemm_fn *)dlsym(lib, "cblas_sgemm");
	config = (char *(*)(void))dlsym(lib, "openblas_get_config");
	if (!sgemm || !config) {
		fprintf(stderr, "sgemm: not a library of OpenBLAS: %s\n", dlerror());
		return 1;
	}
	printf("%s\n", config());
	fflush(stdout);
	while (scanf("%2s %d %d %d %lf", form, &m, &n, &k, &secs) == 5) {
		printf("%.1f\n", measure(sgemm, form, m, n, k, secs) * 1e9);
		fflush(stdout);
	}
	return 0;
}
