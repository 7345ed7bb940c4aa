"""The evaluation protocol of the SR literature: LR/HR pairs, PSNR and SSIM on luma."""
