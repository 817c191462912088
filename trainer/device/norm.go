package device

// LayerNorm is y (Rows, Cols) = (x - mean) * rstd * gamma + beta, by row: mean and rstd = 1/sqrt(variance
// + Eps) are those of the row's Cols elements (the variance divides by Cols). PyTorch's nn.LayerNorm.
//
// Order: sums over a row are added in an order of the device's, a function of Cols alone.
type LayerNorm struct {
	Rows, Cols  int
	Y, X        Buffer
	Gamma, Beta Buffer // (Cols)
	Mean, RStd  Buffer // (Rows), for LayerNormBackward
	Eps         float32
}

// LayerNormBackward is dx (Rows, Cols), dgamma (Cols) and dbeta (Cols), all overwritten, from dy, x and what
// LayerNorm left in Mean and RStd. Order: dgamma and dbeta by row.
type LayerNormBackward struct {
	Rows, Cols    int
	DX, DY, X     Buffer
	Gamma         Buffer
	DGamma, DBeta Buffer
	Mean, RStd    Buffer
}

// BatchNorm is y (Rows, Channels) = act((x - mean) * rstd * gamma + beta), by channel: mean and rstd = 1/sqrt(variance
// + Eps) are those of the channel's Rows elements in this very call (the variance divides by Rows). PyTorch's
// nn.BatchNorm2d in training, on images (N, H, W, Channels) with Rows = N*H*W; there are no running statistics.
//
// Order: sums are added in float32 within blocks of 256 rows, and the blocks in float64, both in an order of the device's, a function of Rows alone.
type BatchNorm struct {
	Rows, Channels int
	Y, X           Buffer
	Gamma, Beta    Buffer // (Channels)
	Mean, RStd     Buffer // (Channels), for BatchNormBackward
	Eps            float32
	Act            Activation
}

// BatchNormBackward is dx (Rows, Channels), dgamma (Channels) and dbeta (Channels), all overwritten, from x,
// what BatchNorm left in Mean and RStd, and dy, the gradient of its output. With an activation it takes y, that output,
// and beta besides, and may overwrite DY; without, it needs neither. DX may be DY or Y.
type BatchNormBackward struct {
	Rows, Channels int
	DX, DY, X, Y   Buffer
	Gamma, Beta    Buffer
	DGamma, DBeta  Buffer
	Mean, RStd     Buffer
	Act            Activation
}

// BatchNormInference is y (Rows, Channels) = act((x - mean) / sqrt(variance + Eps) * gamma + beta), by channel, with a
// mean and a variance that are given. PyTorch's nn.BatchNorm2d in evaluation. Y may be X.
//
// Order: x*a + b with a = gamma / sqrt(variance + Eps) and b = beta - mean*a, each rounded to float32.
type BatchNormInference struct {
	Rows, Channels int
	Y, X           Buffer
	Gamma, Beta    Buffer // (Channels)
	Mean, Variance Buffer // (Channels)
	Eps            float32
	Act            Activation
}
